def register():
    from lvspec_sglang import platform, patches
    if platform.applies():
        for p in patches.CPU_PLATFORM:
            m = p.mismatch()
            if m: print(m)
            p.install()

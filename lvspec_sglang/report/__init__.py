"""``lvspec report``: a page that shows why each token of an answer was committed."""

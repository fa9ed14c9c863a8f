// sparse.cu

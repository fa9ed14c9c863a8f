// dense.cu

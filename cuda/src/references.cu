// references.cu

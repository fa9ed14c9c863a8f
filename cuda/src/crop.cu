// crop.cu

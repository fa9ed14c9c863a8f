// completion.cu

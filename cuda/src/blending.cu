// blending.cu

// texture.cu

// occlusion.cu

// render.cu

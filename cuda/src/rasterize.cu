// rasterize.cu

// rasterize.cpp

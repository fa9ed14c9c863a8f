// laplacian.cpp

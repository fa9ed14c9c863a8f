// sparse.cpp

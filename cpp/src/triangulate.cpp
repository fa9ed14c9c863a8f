// triangulate.cpp

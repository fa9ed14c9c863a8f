// mesh.cpp

// soft_symmetry.cpp

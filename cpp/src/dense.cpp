// dense.cpp

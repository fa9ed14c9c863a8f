// zipper.cpp

// landmark_fit.cpp

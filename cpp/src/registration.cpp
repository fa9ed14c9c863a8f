// registration.cpp

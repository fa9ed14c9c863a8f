// completion.cpp

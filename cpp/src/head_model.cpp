// head_model.cpp

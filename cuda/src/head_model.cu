// head_model.cu

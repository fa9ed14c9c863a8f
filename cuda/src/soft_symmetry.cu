// soft_symmetry.cu

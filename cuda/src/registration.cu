// registration.cu

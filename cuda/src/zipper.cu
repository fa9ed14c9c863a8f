// zipper.cu

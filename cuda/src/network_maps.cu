// network_maps.cu

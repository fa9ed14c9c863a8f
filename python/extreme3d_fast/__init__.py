"""Extreme 3D face reconstruction: one photo in, a detailed, complete 3D face out."""

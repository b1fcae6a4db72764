//! Llama, arXiv:2302.13971.

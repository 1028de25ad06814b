"""One file per operator, read downwards: the maths, the kernels, the launchers, autograd, the public function."""

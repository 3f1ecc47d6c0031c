"""The public functions: what the command line does, from Python, on addresses and on arrays.

Options are plain keyword arguments, the fields of the option classes in `sketchscale.options`; a wrong one is an error
that names the public function. Each module loads when one of its functions is first used.
"""

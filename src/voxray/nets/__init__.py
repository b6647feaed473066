"""Networks that several methods are built from; whoever imports one of them pays for no other."""

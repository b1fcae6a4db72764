//! All that a plugin sees.

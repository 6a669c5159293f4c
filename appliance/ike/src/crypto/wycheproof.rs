//! Project Wycheproof's vectors, at our own use of each primitive.

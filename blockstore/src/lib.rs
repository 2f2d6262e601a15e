//! Block storage node: objects of striped bytes.

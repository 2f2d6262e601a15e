//! The µproxy: classify, plan, send, merge; soft state.

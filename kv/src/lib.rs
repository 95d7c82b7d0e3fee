//! The example state machine.

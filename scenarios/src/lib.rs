//! Storms and directed stories.

//! Servers that are killed, emptied, replaced and away, while clients go on and send again whatever
//! was answered with 503.

mod databases;
mod kafka;
mod logs;
mod redis;
mod together;

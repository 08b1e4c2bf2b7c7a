//! Text for terminals: tables that fit the width, numbers for people, and names that cannot control the terminal.
//!
//! pertask's other crates print reports and profiles with this crate. It knows neither tasks nor profiles.
//!
//! - [`bar`] draws bars of several parts.
//! - [`grid`] lays out tables. A text column is at least `least` and at most `most` characters wide, and gives way where the
//!   terminal is narrow. Number columns with a `rank` are left out in the order of their ranks.
//! - [`human`] writes numbers with units.
//! - [`ink`] adds colours where they are wanted.
//! - [`text`] shortens names and makes control characters visible.
//!
//! ```
//! use pertask_text::grid::{Cell, Column, Grid};
//! use pertask_text::{human, ink::Ink};
//!
//! let columns = [
//!     Column::Number { title: "CPU", rank: None },
//!     Column::Text { title: "TASK", least: 8, most: 40 },
//! ];
//! let row = vec![Cell::new(&human::duration_ns(1_500_000)), Cell::new("GET /users")];
//! let lines = Grid::new(&columns, vec![row]).lines(Some(80), Ink { color: false });
//! assert_eq!(lines, ["    CPU  TASK", "1.50 ms  GET /users"]);
//! ```

#![forbid(unsafe_code)]

pub mod bar;
pub mod grid;
pub mod human;
pub mod ink;
pub mod text;

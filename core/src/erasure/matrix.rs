//! Matrices over GF(2^8), with the field of `reed-solomon-erasure`.

use reed_solomon_erasure::galois_8::{div, exp, mul};

use crate::ids::Row;

/// Row by row, `columns` wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matrix {
    columns: usize,
    cells: Vec<u8>,
}

/// The code's coefficients, 256 rows of k: the Vandermonde matrix (cell r, c is r to the power of c) times the inverse
/// of its top k × k, so that the first k rows are the data themselves.
pub(super) fn systematic_vandermonde(needed: usize) -> Matrix {
    let cells = (0..=u8::MAX).flat_map(|row| (0..needed).map(move |column| exp(row, column))).collect();
    let vandermonde = Matrix { columns: needed, cells };
    let top = Matrix { columns: needed, cells: vandermonde.cells[..needed * needed].to_vec() };
    vandermonde.times(&top.inverted().expect("a Vandermonde matrix of distinct elements is invertible"))
}

impl Matrix {
    /// Coefficients of one row.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.cells[row * self.columns..(row + 1) * self.columns]
    }

    /// The given rows, in the given order.
    pub(super) fn select(&self, rows: &[Row]) -> Self {
        let cells = rows.iter().flat_map(|row| self.row(usize::from(row.0))).copied().collect();
        Self { columns: self.columns, cells }
    }

    /// The product.
    pub(super) fn times(&self, right: &Self) -> Self {
        let cell = |row: &[u8], column: usize| {
            row.iter().enumerate().fold(0, |sum, (at, factor)| sum ^ mul(*factor, right.row(at)[column]))
        };
        let cells = self
            .cells
            .chunks(self.columns)
            .flat_map(|row| (0..right.columns).map(move |column| cell(row, column)))
            .collect();
        Self { columns: right.columns, cells }
    }

    /// The inverse of a square matrix (Gauss-Jordan); None where there is none.
    pub(super) fn inverted(&self) -> Option<Self> {
        let size = self.columns;
        let mut left: Vec<Vec<u8>> = self.cells.chunks(size).map(<[u8]>::to_vec).collect();
        let mut right: Vec<Vec<u8>> = (0..size).map(|at| unit(size, at)).collect();
        for column in 0..size {
            let pivot = (column..size).find(|row| left[*row][column] != 0)?;
            left.swap(column, pivot);
            right.swap(column, pivot);
            let factor = div(1, left[column][column]);
            scale(&mut left[column], factor);
            scale(&mut right[column], factor);
            for row in (0..size).filter(|row| *row != column) {
                let factor = left[row][column];
                let (left_pivot, right_pivot) = (left[column].clone(), right[column].clone());
                add_multiple(&mut left[row], &left_pivot, factor);
                add_multiple(&mut right[row], &right_pivot, factor);
            }
        }
        Some(Self { columns: size, cells: right.concat() })
    }
}

fn unit(size: usize, at: usize) -> Vec<u8> {
    (0..size).map(|column| u8::from(column == at)).collect()
}

fn scale(row: &mut [u8], factor: u8) {
    for cell in row {
        *cell = mul(*cell, factor);
    }
}

fn add_multiple(row: &mut [u8], other: &[u8], factor: u8) {
    for (cell, addend) in row.iter_mut().zip(other) {
        *cell ^= mul(*addend, factor);
    }
}

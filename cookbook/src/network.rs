//! [`Network`]: a network of two layers, and its outputs by a plain computation.

use invoker::Buffer;
use serde::{Deserialize, Serialize};

use crate::{Random, scaled};

/// The weights of a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    /// The number of inputs.
    pub inputs: usize,
    /// A matrix with a row for each output.
    pub weights: Buffer<f32>,
}

/// A network of two layers, with `max(x, 0)` between them.
///
/// Its weights and inputs are small whole numbers: sums of their products are exact in any order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    /// The layers, in the order in which they are applied.
    pub layers: [Layer; 2],
}

impl Network {
    /// The number of inputs, and of outputs.
    pub const WIDTH: usize = 1024;

    /// Returns a network of 33 MB.
    pub fn random(random: &mut Random) -> Self {
        let hidden = scaled(4096) as usize;
        let mut layer = |inputs: usize, outputs: usize| Layer {
            inputs,
            weights: (0..inputs * outputs)
                .map(|_| random.below(3) as f32 - 1.0)
                .collect(),
        };
        let layers = [layer(Self::WIDTH, hidden), layer(hidden, Self::WIDTH)];
        Self { layers }
    }

    /// Returns `count` inputs for the network.
    pub fn inputs(random: &mut Random, count: usize) -> Vec<Vec<f32>> {
        let mut number = |_| random.below(9) as f32 - 4.0;
        (0..count)
            .map(|_| (0..Self::WIDTH).map(&mut number).collect())
            .collect()
    }

    /// Returns the outputs for `input`.
    pub fn predict(&self, input: &[f32]) -> Vec<f32> {
        let [first, second] = &self.layers;
        let hidden: Vec<f32> = first.multiply(input).map(|sum| sum.max(0.0)).collect();
        second.multiply(&hidden).collect()
    }

    /// Returns the number of bytes of all weights.
    pub fn bytes(&self) -> u64 {
        let bytes = self.layers.each_ref().map(|layer| size_of_val(&*layer.weights));
        bytes.iter().sum::<usize>() as u64
    }
}

impl Layer {
    /// Returns the number of outputs.
    pub fn outputs(&self) -> usize {
        self.weights.len() / self.inputs
    }

    /// Returns the product of the weights and `input`.
    ///
    /// # Panics
    /// If `input` has another number of elements than the layer has inputs.
    pub fn multiply<'a>(&'a self, input: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        assert_eq!(input.len(), self.inputs, "the layer has other inputs");
        self.weights.chunks_exact(self.inputs).map(|row| dot(row, input))
    }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    // Sums side by side, which the compiler turns into vector instructions.
    const SUMS: usize = 16;
    let (one, other) = (one.chunks(SUMS), other.chunks(SUMS));
    let mut sums = [0.0; SUMS];
    for (one, other) in one.zip(other) {
        for (sum, (a, b)) in sums.iter_mut().zip(one.iter().zip(other)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_multiplied_by_rows() {
        let ones = |len| vec![1.0; len].into();
        let mut weights = vec![0.0; 36];
        (weights[0], weights[17], weights[35]) = (2.0, -3.0, 5.0);
        let weights: Buffer<f32> = weights.into();
        let layers = [
            Layer { inputs: 18, weights },
            Layer {
                inputs: 2,
                weights: ones(6),
            },
        ];
        let network = Network { layers };
        assert_eq!((network.layers[0].outputs(), network.bytes()), (2, 4 * 42));
        let input: Vec<f32> = (0..18).map(|n| n as f32 + 1.0).collect();
        let hidden: Vec<f32> = network.layers[0].multiply(&input).collect();
        assert_eq!(hidden, [2.0 - 54.0, 90.0]);
        assert_eq!(network.predict(&input), [90.0; 3]);
    }
}

/// \file
/// All of deft: the core and every operator, which bring the kernels and vector functions they are made of. An
/// operator's own header is enough for that operator, and compiles faster.
#ifndef DEFT_DEFT_HPP
#define DEFT_DEFT_HPP

#include <deft/activation_kind.hpp>    // the base activations by name
#include <deft/config.hpp>             // version, switches, error handling
#include <deft/linalg.hpp>             // dense linear algebra on views
#include <deft/linalg_orthonormal.hpp> // orthonormal bases
#include <deft/linalg_symmetric.hpp>   // eigenvalues and eigenvectors
#include <deft/parallel.hpp>           // executors: how operators share work over threads
#include <deft/view.hpp>               // view, in, rows: tensors over memory of the caller
#ifdef _OPENMP
#include <deft/parallel_openmp.hpp> // the executor over OpenMP threads
#endif

// Activation (arXiv:2312.17276, arXiv:2305.12972)
#include <deft/activation/annealed_activation.hpp>        // activation on its way to the identity, and the schedule
#include <deft/activation/fuse_conv_bn.hpp>               // batch normalisation folded into the convolution before it
#include <deft/activation/merge_pointwise_convs.hpp>      // two convolutions, one of them 1x1, as one
#include <deft/activation/prepared_series_activation.hpp> // series_activation prepared once per layer, at constant cost
#include <deft/activation/series_activation.hpp>          // sum of scaled and shifted activations
#include <deft/activation/series_activation_2d.hpp>       // the same over a neighbourhood of an image, with its norm

// Attention (arXiv:2403.19928)
#include <deft/attention/dct.hpp>                       // discrete cosine transforms of rows
#include <deft/attention/dct_feature_map.hpp>           // positive features whose products stand for exp(q . k)
#include <deft/attention/dct_linear_attention.hpp>      // linear attention over such features of queries and keys
#include <deft/attention/dijiang_layer.hpp>             // the attention layer of DiJiang: prefill and decode
#include <deft/attention/dijiang_layer_backward.hpp>    // its gradients
#include <deft/attention/head_decay.hpp>                // decays of heads, and from tables of position weights
#include <deft/attention/linear_attention.hpp>          // attention over features, in time linear in the tokens
#include <deft/attention/linear_attention_backward.hpp> // its gradients
#include <deft/attention/linear_attention_combine.hpp>  // its states as spans: chunks, threads, machines
#include <deft/attention/linear_attention_log.hpp>      // the same over logarithms of features: cannot overflow
#include <deft/attention/linear_attention_scaled.hpp>   // the same with a scale per key
#include <deft/attention/qmc_frequencies.hpp>           // the radii of those features
#include <deft/attention/softmax_attention.hpp>         // the exact attention that it replaces

// Quantization (arXiv:2312.07950)
#include <deft/quantization/block.hpp>                      // a block of a model, as the method sees it
#include <deft/quantization/blocks.hpp>                     // ready-made: linear, gated FFN, attention
#include <deft/quantization/calibration.hpp>                // what a window of blocks learns from
#include <deft/quantization/cfp_detection.hpp>              // how they are found
#include <deft/quantization/cfp_outliers.hpp>               // outliers of weights and activations
#include <deft/quantization/cross_block.hpp>                // the method, on any model
#include <deft/quantization/cross_block_archive.hpp>        // its state as bytes
#include <deft/quantization/cross_block_options.hpp>        // its options
#include <deft/quantization/cross_block_reconstruction.hpp> // windows, the distance of outputs, Adam
#include <deft/quantization/cross_block_window.hpp>         // several blocks that are learned together
#include <deft/quantization/fake_quantize.hpp>              // quantise and dequantise, with learned or dynamic steps
#include <deft/quantization/layer_options.hpp>              // how it quantises a layer, and the result
#include <deft/quantization/learned_linear.hpp>             // a linear layer whose quantisation is learned
#include <deft/quantization/learned_weight.hpp>             // its weight alone
#include <deft/quantization/lora_rounding.hpp>              // roundings that are learned, by two thin factors
#include <deft/quantization/packed_weights.hpp>             // codes of 2, 4, 8 bits in bytes, and what ggml writes
#include <deft/quantization/prepared_weights.hpp>           // the same in the layout of the products
#include <deft/quantization/quant_format.hpp>               // bits, ranges, granularity
#include <deft/quantization/quant_params.hpp>               // step sizes and zero points from the range
#include <deft/quantization/quantized_activation.hpp>       // activations as codes, found per token
#include <deft/quantization/quantized_matmul.hpp>           // products with such weights: A16, A8, A4
#include <deft/quantization/rounding_logits.hpp>            // the factors of roundings
#include <deft/quantization/rounding_loss.hpp>              // what drives them to 0 or 1, and its schedule
#include <deft/quantization/step_search.hpp>                // step size by a metric that knows the loss
#include <deft/quantization/twin_quantize.hpp>              // two step sizes after softmax and GELU
// Pruning (arXiv:2311.17493, arXiv:2407.00676)
#include <deft/pruning/bit_mask.hpp>                  // masks as bits, and what is done with them
#include <deft/pruning/low_rank_approximation.hpp>    // truncated singular value decompositions
#include <deft/pruning/low_rank_factors.hpp>          // what they are made of
#include <deft/pruning/low_rank_modulated_linear.hpp> // one weight for several tasks, with a bias of low rank for each
#include <deft/pruning/magnitude_mask.hpp>            // masks by magnitude: global, N:M, blocks
#include <deft/pruning/prune_and_regrow.hpp>          // the mask update of RPG, for a layer and for a model
#include <deft/pruning/rank_analysis.hpp>             // what rank the bias of a task needs
#include <deft/pruning/rank_choice.hpp>               // a rank from singular values
#include <deft/pruning/rank_loss.hpp>                 // the distance to low rank, for a layer and for a model
#include <deft/pruning/rank_metrics.hpp>              // stable, effective and other ranks
#include <deft/pruning/select_largest.hpp>            // the largest magnitudes of many tensors
#include <deft/pruning/sparse_engine.hpp>             // how products of sparse weights run
#include <deft/pruning/sparse_formats.hpp>            // CSR, blocked CSR, N:M
#include <deft/pruning/sparse_matmul.hpp>             // sparse weights times dense activations
#include <deft/pruning/sparse_weight.hpp>             // a sparse weight made ready for that
#include <deft/pruning/sparsity_schedule.hpp>         // densities over time and over layers
#include <deft/pruning/weight_spectrum.hpp>           // singular values and vectors of a weight

// Shortcut (arXiv:2106.15941, arXiv:2312.17276)
#include <deft/shortcut/augmented_shortcut.hpp>            // nonlinear paths beside the identity shortcut, dense
#include <deft/shortcut/augmented_shortcut_bottleneck.hpp> // the same, narrow in the middle
#include <deft/shortcut/augmented_shortcut_circulant.hpp>  // the same, with block-circulant weights
#include <deft/shortcut/block_circulant_linear.hpp>        // linear layer of d p parameters instead of d^2
#include <deft/shortcut/effective_dimension.hpp>           // how many principal components token features span
#include <deft/shortcut/feature_diversity.hpp>             // how far token features are from collapse
#include <deft/shortcut/feature_diversity_state.hpp>       // the same of rows that come in blocks
#include <deft/shortcut/prepared_augmented_shortcut_circulant.hpp> // circulant paths through Fourier transforms
#include <deft/shortcut/prepared_block_circulant.hpp>              // block_circulant_linear through Fourier transforms

// SSM (arXiv:2312.00752, arXiv:2403.00818)
#include <deft/ssm/causal_conv1d.hpp>                // depthwise convolution over time, streaming
#include <deft/ssm/dense_mamba_block.hpp>            // Mamba layers that share their states over depth
#include <deft/ssm/dense_retnet_block.hpp>           // RetNet layers that share keys and values over depth
#include <deft/ssm/hidden_state_fusion.hpp>          // states of earlier layers, gated, into this layer's
#include <deft/ssm/hidden_state_fusion_backward.hpp> // its gradient
#include <deft/ssm/linear_scan.hpp>                  // h_t = a_t h_{t-1} + b_t, whole or by spans that threads share
#include <deft/ssm/retention.hpp>                    // linear attention with a fixed decay per head: RetNet
#include <deft/ssm/retention_backward.hpp>           // its gradients
#include <deft/ssm/retention_gate.hpp>               // norm of each head, then a gate
#include <deft/ssm/retention_rotary.hpp>             // rotary positions of queries and keys
#include <deft/ssm/scan_combine.hpp>                 // how spans of such scans meet
#include <deft/ssm/selective_scan.hpp>               // Mamba's scan, with its softplus, skip and gate
#include <deft/ssm/selective_scan_backward.hpp>      // its gradient
#include <deft/ssm/selective_scan_hidden.hpp>        // the same with its states shown, and others' added

#endif

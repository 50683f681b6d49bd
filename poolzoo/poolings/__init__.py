"""The built-in pooling strategies: a plugin like any other. The layers lie beside it, one file a family."""

from __future__ import annotations

from collections.abc import Iterator

from poolzoo.plugin.spec import Kind, Pooling, hookimpl

_LIN = "Lin, Chen and Yan, Network in Network, ICLR 2014, arXiv:1312.4400"
_OQUAB = "Oquab, Bottou, Laptev and Sivic, Is object localization for free?, CVPR 2015"
_LECUN = "LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
_SCHERER = "Scherer, Müller and Behnke, Evaluation of Pooling Operations in Convolutional Architectures, ICANN 2010"
_LEE = "Lee, Gallagher and Tu, Generalizing Pooling Functions in CNNs, AISTATS 2016, arXiv:1509.08985"
_RADENOVIC = "Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval, TPAMI 2019, arXiv:1711.02512"
_PINHEIRO = "Pinheiro and Collobert, From Image-level to Pixel-level Labeling, CVPR 2015, arXiv:1411.6228"
_SERMANET = (
    "Sermanet, Chintala and LeCun, CNNs Applied to House Numbers Digit Classification, ICPR 2012, arXiv:1204.3968"
)
_STERGIOU = (
    "Stergiou, Poppe and Kalliatakis, Refining activation downsampling with SoftPool, ICCV 2021, arXiv:2101.00440"
)
_ZEILER = "Zeiler and Fergus, Stochastic Pooling for Regularization of Deep CNNs, ICLR 2013, arXiv:1301.3557"
_GRAHAM = "Graham, Fractional Max-Pooling, 2014, arXiv:1412.6071"
_ZHANG = "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486"
_RADFORD = "Radford et al., Learning Transferable Visual Models (CLIP), ICML 2021, arXiv:2103.00020"
_SET = "Lee, Lee, Kim, Kosiorek, Choi and Teh, Set Transformer, ICML 2019, arXiv:1810.00825"
_PSOMAS = "Psomas, Kakogeorgiou, Karantzalos and Avrithis, Keep It SimPool, ICCV 2023, arXiv:2309.06891"
_HAJIMIRI = "Hajimiri et al., Locality-Attending Vision Transformer, ICLR 2026, arXiv:2603.04892"
_DURAND = "Durand, Mordan, Thome and Cord, WILDCAT, CVPR 2017"
_SNYDER = "Snyder, Garcia-Romero, Sell, Povey and Khudanpur, X-Vectors, ICASSP 2018"
_SPP = "He, Zhang, Ren and Sun, Spatial Pyramid Pooling, ECCV 2014, arXiv:1406.4729"
_LI = "Li, Xie, Wang and Gao, Towards Faster Training of Global Covariance Pooling, CVPR 2018, arXiv:1712.01034"
_BILINEAR = "Lin, RoyChowdhury and Maji, Bilinear CNN Models, ICCV 2015, arXiv:1504.07889"
_COMPACT = "Gao, Beijbom, Zhang and Darrell, Compact Bilinear Pooling, CVPR 2016, arXiv:1511.06062"
_NETVLAD = "Arandjelović, Gronat, Torii, Pajdla and Sivic, NetVLAD, CVPR 2016, arXiv:1511.07247"
_CHAMAN = "Chaman and Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021, arXiv:2011.14214"
_ROJAS = "Rojas-Gómez, Lim, Schwing, Do and Yeh, Learnable Polyphase Sampling, NeurIPS 2022, arXiv:2210.08001"
_LIP = "Gao, Wang and Wu, LIP: Local Importance-Based Pooling, ICCV 2019, arXiv:1908.04156"
_RIPPEL = "Rippel, Snoek and Adams, Spectral Representations for CNNs, NIPS 2015, arXiv:1506.03767"
_WILLIAMS = "Williams and Li, Wavelet Pooling for Convolutional Neural Networks, ICLR 2018"
_MAXOUT = "Goodfellow, Warde-Farley, Mirza, Courville and Bengio, Maxout Networks, ICML 2013, arXiv:1302.4389"
_HOU = "Hou, Zhang, Cheng and Feng, Strip Pooling, CVPR 2020, arXiv:2003.13328"
_TOLIAS = "Tolias, Sicre and Jégou, Particular object retrieval with integral max-pooling, ICLR 2016, arXiv:1511.05879"
_S3 = "Zhai, Wu, Kumar, Cheng, Lu, Zhang and Feris, S3Pool, CVPR 2017, arXiv:1611.05138"
_SPRINGENBERG = (
    "Springenberg, Dosovitskiy, Brox and Riedmiller, The All Convolutional Net, ICLR workshop 2015, arXiv:1412.6806"
)
_SHI = "Shi et al., Real-Time Single Image Super-Resolution (sub-pixel CNN), CVPR 2016, arXiv:1609.05158"


@hookimpl
def poolzoo_poolings() -> Iterator[Pooling]:
    yield from _windowed()
    yield from _power()
    yield from _weighted()
    yield from _antialiased()
    yield from _attention()
    yield from _second_order()
    yield from _regions()
    yield from _stochastic()
    yield from _frequency()
    yield from _ordering()
    yield from _channels()
    yield from _controls()


def _pooling(
    kind: Kind, name: str, build: str, summary: str, equation: str, paper: str = "", *, parameters: bool = False,
    stochastic: bool = False,
) -> Pooling:  # fmt: skip
    return Pooling(
        kind=kind,
        name=name,
        build=f"poolzoo.poolings.{build}",
        summary=summary,
        equation=equation,
        tex=_TEX.get(f"{kind} {name}") or _TEX[name],
        paper=paper,
        parameter_free=not parameters,
        stochastic=stochastic,
    )


# fmt: off
# A line each: kind, name, layer; what it does; the equation; the paper.


def _windowed() -> Iterator[Pooling]:
    yield _pooling("global", "avg", "windowed:GlobalAvg", "mean over the feature map", "y = mean x", _LIN)
    yield _pooling("local", "avg", "windowed:local_avg", "mean over each window", "y = mean of x in the window", _LECUN)
    yield _pooling("global", "max", "windowed:GlobalMax", "maximum over the feature map", "y = max x", _OQUAB)
    yield _pooling("local", "max", "windowed:local_max", "maximum over each window",
                   "y = max of x in the window", _SCHERER)
    yield _pooling("global", "min", "windowed:GlobalMin", "minimum over the feature map", "y = min x")
    yield _pooling("local", "min", "windowed:local_min", "minimum over each window", "y = min of x in the window")
    yield _pooling("global", "avgmax", "windowed:GlobalAvgMax", "halfway between mean and maximum",
                   "y = (mean x + max x) / 2", _LEE)
    yield _pooling("local", "avgmax", "windowed:local_avg_max", "halfway between mean and maximum of each window",
                   "y = (mean x + max x) / 2 in the window", _LEE)
    yield _pooling("global", "catavgmax", "windowed:GlobalCatAvgMax",
                   "mean and maximum side by side, twice the width", "y = [mean x, max x]")
    yield _pooling("global", "mixed", "windowed:GlobalMixed", "learned mixture of maximum and mean",
                   "y = a max x + (1 − a) mean x, a = σ(w)", _LEE, parameters=True)
    yield _pooling("local", "mixed", "windowed:local_mixed", "learned mixture of maximum and mean of each window",
                   "y = a max x + (1 − a) mean x in the window, a = σ(w)", _LEE, parameters=True)
    yield _pooling("global", "gated", "windowed:GlobalGated", "mixture of maximum and mean, gated by the feature map",
                   "y = a max x + (1 − a) mean x, a = σ(w · x)", _LEE, parameters=True)
    yield _pooling("local", "gated", "windowed:local_gated", "mixture of maximum and mean, gated by each window",
                   "y = a max x + (1 − a) mean x in the window, a = σ(w · x)", _LEE, parameters=True)
    yield _pooling("local", "variable", "windowed:local_variable",
                   "windows of 2 at the border and 3 inside; maximum or mean (ours)",
                   "y[i, j] = max of x in a window of side 2 where i or j is first or last, else of side 3")


def _power() -> Iterator[Pooling]:
    yield _pooling("global", "gem", "power:GlobalGeM", "generalized mean with a learnable exponent",
                   "y = (mean max(x, eps)^p)^(1/p)", _RADENOVIC, parameters=True)
    yield _pooling("local", "gem", "power:local_gem", "generalized mean of each window, learnable exponent",
                   "y = (mean max(x, eps)^p)^(1/p) in the window", _RADENOVIC, parameters=True)
    yield _pooling("global", "lp", "power:GlobalLp", "p-norm of the feature map", "y = (Σ |x|^p)^(1/p)", _SERMANET)
    yield _pooling("local", "lp", "power:local_lp", "p-norm of each window",
                   "y = (Σ |x|^p)^(1/p) in the window", _SERMANET)
    yield _pooling("global", "lse", "power:GlobalLSE",
                   "log-mean-exp with a learnable sharpness, between mean and maximum",
                   "y = (1/r) log mean exp(r x)", _PINHEIRO, parameters=True)
    yield _pooling("local", "lse", "power:local_lse", "log-mean-exp of each window, learnable sharpness",
                   "y = (1/r) log mean exp(r x) in the window", _PINHEIRO, parameters=True)


def _weighted() -> Iterator[Pooling]:
    yield _pooling("global", "soft", "weighted:GlobalSoft", "exponentially weighted mean",
                   "y = Σ x e^x / Σ e^x", _STERGIOU)
    yield _pooling("local", "soft", "weighted:local_soft", "exponentially weighted mean of each window",
                   "y = Σ x e^x / Σ e^x in the window", _STERGIOU)
    yield _pooling("local", "lip", "weighted:local_lip", "mean weighted by learned importance",
                   "y = Σ x e^g / Σ e^g in the window, g = 12 σ(IN(conv₃ₓ₃(x)))", _LIP, parameters=True)


def _antialiased() -> Iterator[Pooling]:
    yield _pooling("local", "blur", "antialiased:blur", "binomial low-pass filter, then subsampling",
                   "y = (b ⊗ b * x) at every stride-th position, b = [1, 2, 1] / 4", _ZHANG)
    yield _pooling("local", "maxblur", "antialiased:max_blur",
                   "dense maximum, then binomial low-pass filter and subsampling",
                   "y = blur(max of x in the window, at stride 1)", _ZHANG)
    yield _pooling("local", "aps", "antialiased:aps", "the shifted sampling grid with the largest norm",
                   "y = x[:, i::s, j::s], (i, j) = argmax ‖x[:, i::s, j::s]‖₂", _CHAMAN)
    yield _pooling("local", "lps", "antialiased:lps", "the shifted sampling grid with the largest learned score",
                   "y = x[:, i::s, j::s], (i, j) = argmax mean f(x[:, i::s, j::s]); training: a Gumbel softmax of it",
                   _ROJAS, parameters=True, stochastic=True)


def _attention() -> Iterator[Pooling]:
    yield _pooling("global", "attention", "attention:AttentionPool", "CLIP's attention, with the mean as the query",
                   "y = W attention(Q t₀, K t, V t), t = [mean x, x] + position", _RADFORD, parameters=True)
    yield _pooling("global", "map", "attention:MapPool", "attention with a learned query, then an MLP",
                   "z = W attention(Q latent, K x, V x), y = z + MLP(LN(z))", _SET, parameters=True)
    yield _pooling("global", "simpool", "attention:SimPool", "attention with the mean as the query",
                   "y = attention(Q mean x, K LN(x), LN(x))", _PSOMAS, parameters=True)
    yield _pooling("global", "prr", "attention:PRR", "self-attention without parameters, then the mean",
                   "y = mean attention(x, x, x)", _HAJIMIRI)


def _second_order() -> Iterator[Pooling]:
    yield _pooling("global", "std", "second_order:GlobalStd", "mean and standard deviation, twice the width",
                   "y = [mean x, √(var x + 1e-5)]", _SNYDER)
    yield _pooling("global", "cov", "second_order:Cov", "square root of the channels' covariance",
                   "y = triu(Σ^½), Σ = covariance of the reduced channels, by Newton–Schulz steps", _LI,
                   parameters=True)
    yield _pooling("global", "bilinear", "second_order:Bilinear", "mean products of all pairs of channels",
                   "y = s / ‖s‖₂, s = sign(Y) √|Y|, Y = x xᵀ / HW", _BILINEAR, parameters=True)
    yield _pooling("global", "cbp", "second_order:CompactBilinear", "a sketch of bilinear pooling, 512 wide",
                   "y = s / ‖s‖₂, s = sign(Y) √|Y|, Y = mean of the circular convolution of two count sketches of x",
                   _COMPACT)
    yield _pooling("global", "netvlad", "encoding:NetVLAD", "residuals from learned centers, softly assigned",
                   "y = norm [norm Σ_i a_k(x_i) (x_i − c_k)]_k, a = softmax(W x)", _NETVLAD, parameters=True)


def _regions() -> Iterator[Pooling]:
    yield _pooling("global", "adaptive", "regions:GlobalAdaptive",
                   "mean or maximum over a fixed grid of cells, flattened",
                   "y[c, i, j] = mean or max of x[c] over rows ⌊iH/s⌋ to ⌈(i+1)H/s⌉, columns likewise")
    yield _pooling("local", "adaptive", "regions:local_adaptive",
                   "mean or maximum over a grid of cells that cover the feature map",
                   "y[i, j] = mean or max of x over rows ⌊iH/h⌋ to ⌈(i+1)H/h⌉, columns likewise")
    yield _pooling("global", "spp", "regions:SPP", "spatial pyramid: maxima over grids of 1, 4 and 16 cells",
                   "y = [adaptive₁ x, adaptive₂ x, adaptive₄ x]", _SPP)
    yield _pooling("global", "rmac", "regions:RMAC", "sum of normalized maxima over overlapping squares",
                   "y = Σ_R m_R / ‖m_R‖₂, m_R = max over region R", _TOLIAS)
    yield _pooling("global", "strip", "regions:GlobalStrip", "the strongest row and the strongest column",
                   "y = [max_i mean_j x, max_j mean_i x]", _HOU)
    yield _pooling("local", "strip", "regions:local_strip", "mean of each window, gated by means of rows and columns",
                   "y = mean of x σ(W relu(f(rows) + g(columns))) in the window", _HOU, parameters=True)


def _stochastic() -> Iterator[Pooling]:
    yield _pooling("global", "stochastic", "stochastic:GlobalStochastic",
                   "a location drawn by its activation; in eval its expectation",
                   "y = Σ a² / Σ a, a = max(x, 0); training: y = a_i with P(i) = a_i / Σ a", _ZEILER, stochastic=True)
    yield _pooling("local", "stochastic", "stochastic:local_stochastic",
                   "a location of each window drawn by its activation; in eval its expectation",
                   "y = Σ a² / Σ a in the window, a = max(x, 0); training: y = a_i with P(i) = a_i / Σ a", _ZEILER,
                   stochastic=True)
    yield _pooling("local", "fractional", "stochastic:fractional", "maximum over regions of varying steps",
                   "y = max of x over k rows from ⌊(i + u) α⌋ − ⌊u α⌋, α = (H − k) / (h − 1), columns likewise",
                   _GRAHAM, stochastic=True)
    yield _pooling("local", "s3", "stochastic:s3", "dense maximum, then rows and columns drawn at random",
                   "y = mean over s × s of (max of x in the window, at stride 1); training: rows and columns drawn",
                   _S3, stochastic=True)


def _frequency() -> Iterator[Pooling]:
    yield _pooling("local", "spectral", "frequency:spectral", "crop to the low frequencies",
                   "y = Re ifft(crop(fft(x)))", _RIPPEL)
    yield _pooling("local", "wavelet", "frequency:wavelet", "low-pass band of a wavelet, haar or db2",
                   "y = (l ⊗ l * x) at every second position; haar: 2 mean", _WILLIAMS)


def _ordering() -> Iterator[Pooling]:
    yield _pooling("global", "topk", "ordering:GlobalTopK", "mean of the k largest values",
                   "y = mean of the k largest x", _DURAND)
    yield _pooling("local", "topk", "ordering:local_topk", "mean of the k largest values of each window",
                   "y = mean of the k largest x in the window", _DURAND)
    yield _pooling("global", "median", "ordering:GlobalMedian", "lower median of the feature map",
                   "y = the x of rank ⌈HW / 2⌉")
    yield _pooling("local", "median", "ordering:local_median", "lower median of each window",
                   "y = the x of rank ⌈n / 2⌉ of the n in the window")
    yield _pooling("global", "quantile", "ordering:GlobalQuantile", "a quantile of the feature map",
                   "y = the x of rank 1 + q (HW − 1), linear between ranks")


def _channels() -> Iterator[Pooling]:
    yield _pooling("global", "depth", "channels:GlobalDepth", "maximum across groups of channels, then the mean",
                   "y[d] = mean of max over c in group d of x[c]", _MAXOUT)
    yield _pooling("local", "depth", "channels:local_depth", "maximum across groups of channels and each window",
                   "y[d] = max of x[c] in the window over c in group d", _MAXOUT)
    yield _pooling("local", "s2d", "channels:space_to_depth", "the values of each window become channels",
                   "y[c k² + i k + j] = x[c] at (i, j) of the window", _SHI)


def _controls() -> Iterator[Pooling]:
    yield _pooling("local", "subsample", "controls:subsample", "no pooling: the value at each window's center",
                   "y[i, j] = x[i s − p + ⌊(k − 1) / 2⌋, j s − p + ⌊(k − 1) / 2⌋], the nearest inside")
    yield _pooling("local", "conv", "controls:local_conv", "a strided convolution, which starts as the mean",
                   "y[d] = b[d] + Σ_c w[d, c] · x[c] in the window", _SPRINGENBERG, parameters=True)


# The same equations in TeX. x_i are the n values of the feature map, or of a window, and \\bar x is their mean.
_TEX = {
    "avg": r"y = \frac{1}{n} \sum_i x_i",
    "max": r"y = \max_i x_i",
    "min": r"y = \min_i x_i",
    "avgmax": r"y = \frac{1}{2} \left( \bar{x} + \max_i x_i \right)",
    "catavgmax": r"y = \left[ \bar{x},\ \max_i x_i \right]",
    "mixed": r"y = a \max_i x_i + (1 - a)\, \bar{x}, \quad a = \sigma(w)",
    "gated": r"y = a \max_i x_i + (1 - a)\, \bar{x}, \quad a = \sigma \left( \sum_i w_i x_i \right)",
    "variable": r"y = \max_{i \in k \times k} x_i, \quad "
                r"k = 2 \text{ at the border}, 3 \text{ inside}",
    "gem": r"y = \left( \frac{1}{n} \sum_i \max(x_i, \varepsilon)^p \right)^{1/p}",
    "lp": r"y = \left( \sum_i |x_i|^p \right)^{1/p}",
    "lse": r"y = \frac{1}{r} \log\, \left( \frac{1}{n} \sum_i e^{r x_i} \right)",
    "soft": r"y = \frac{\sum_i x_i e^{x_i}}{\sum_i e^{x_i}}",
    "lip": r"y = \frac{\sum_i x_i e^{g_i}}{\sum_i e^{g_i}}, \quad "
           r"g = 12\, \sigma(\operatorname{IN}(w_{3 \times 3} * x))",
    "blur": r"y = (b \otimes b * x) {\downarrow}_s, \quad b = \frac{1}{4} [1, 2, 1]",
    "maxblur": r"y = (b \otimes b * m) {\downarrow}_s, \quad m = \max_i x_i \text{ at stride 1}",
    "aps": r"y = x^{(i,j)}, \quad (i, j) = \operatorname{argmax} \left\lVert x^{(i,j)} \right\rVert_2, \quad "
           r"x^{(i,j)} = x_{i::s,\, j::s}",
    "lps": r"y = x^{(i,j)}, \quad (i, j) = \operatorname{argmax} \operatorname{mean} f(x^{(i,j)}), \quad "
           r"x^{(i,j)} = x_{i::s,\, j::s}",
    "attention": r"y = W\, \operatorname{softmax} \left( \frac{q^\top K t}{\sqrt{d}} \right) V t, \quad "
                 r"q = Q t_0, \quad t = [\bar{x}, x] + p",
    "map": r"z = W\, \operatorname{softmax} \left( \frac{q^\top K x}{\sqrt{d}} \right) V x, \quad "
           r"q = Q \ell, \quad y = z + \operatorname{MLP}(\operatorname{LN}(z))",
    "simpool": r"y = \operatorname{softmax} \left( \frac{q^\top K \hat{x}}{\sqrt{d}} \right) \hat{x}, \quad "
               r"q = Q \bar{x}, \quad \hat{x} = \operatorname{LN}(x)",
    "prr": r"y = \frac{1}{n} \sum_i \operatorname{softmax} \left( \frac{x_i^\top x}{\sqrt{d}} \right) x",
    "std": r"y = \left[ \bar{x},\ \sqrt{s^2 + 10^{-5}} \right], \quad s^2 = \frac{1}{n} \sum_i (x_i - \bar{x})^2",
    "cov": r"y = \operatorname{triu}(\Sigma^{1/2}), \quad "
           r"\Sigma = \frac{1}{n} \sum_i (x_i - \bar{x}) (x_i - \bar{x})^\top",
    "bilinear": r"y = \frac{s}{\lVert s \rVert_2}, \quad s = \operatorname{sign}(Y) \sqrt{|Y|}, \quad "
                r"Y = \frac{1}{n} \sum_i x_i x_i^\top",
    "cbp": r"y = \frac{s}{\lVert s \rVert_2}, \quad s = \operatorname{sign}(Y) \sqrt{|Y|}, \quad "
           r"Y = \frac{1}{n} \sum_i \psi_1(x_i) \circledast \psi_2(x_i)",
    "netvlad": r"y = \operatorname{norm} \left[ \operatorname{norm} V_k \right]_k, \quad "
               r"V_k = \sum_i a_k(x_i) (x_i - c_k), \quad a = \operatorname{softmax}(W x_i)",
    "adaptive": r"y_{uv} = \frac{1}{|C_{uv}|} \sum_{i \in C_{uv}} x_i, \quad "
                r"C_{uv} = \left\lfloor \frac{u H}{h} \right\rfloor \dots \left\lceil \frac{(u + 1) H}{h} \right\rceil"
                r"\times \dots",
    "spp": r"y = [A_1(x), A_2(x), A_4(x)], \quad A_m(x)_{uv} = \max_{i \in C_{uv}} x_i, \quad u, v \le m",
    "rmac": r"y = \sum_R \frac{m_R}{\lVert m_R \rVert_2}, \quad m_R = \max_{i \in R} x_i",
    "global strip": r"y = \left[ \max_u r_u,\ \max_v c_v \right], \quad "
                    r"r_u = \frac{1}{W} \sum_v x_{uv}, \quad c_v = \frac{1}{H} \sum_u x_{uv}",
    "local strip": r"y = \frac{1}{n} \sum_i x_i\, \sigma(W \operatorname{relu} m)_i, \quad "
                   r"m = f * \bar{x}_{\text{rows}} + g * \bar{x}_{\text{columns}}",
    "stochastic": r"y = \frac{\sum_i a_i^2}{\sum_i a_i}, \quad a_i = \max(x_i, 0); \quad "
                  r"\text{training: } y = a_i,\ P(i) = \frac{a_i}{\sum_j a_j}",
    "fractional": r"y_{uv} = \max_{i \in R_u \times R_v} x_i, \quad "
                  r"R_u = r_u \dots r_u + k - 1, \quad r_u = \lfloor (u + c) \alpha \rfloor - \lfloor c \alpha \rfloor",
    "s3": r"y = \frac{1}{s^2} \sum_{s \times s} m, \quad m = \max_i x_i \text{ at stride 1}",
    "spectral": r"y = \operatorname{Re} \mathcal{F}^{-1}(\operatorname{crop}(\mathcal{F}(x)))",
    "wavelet": r"y = (l \otimes l * x) {\downarrow}_2, \quad l = \frac{1}{\sqrt{2}} [1, 1]",
    "topk": r"y = \frac{1}{k} \sum_{j=1}^{k} x_{(j)}, \quad x_{(1)} \ge x_{(2)} \ge \dots",
    "median": r"y = x_{(\lceil n/2 \rceil)}, \quad x_{(1)} \le x_{(2)} \le \dots",
    "quantile": r"y = (1 - t)\, x_{(\lfloor r \rfloor)} + t\, x_{(\lfloor r \rfloor + 1)}, \quad "
                r"r = 1 + q (n - 1), \quad t = r - \lfloor r \rfloor",
    "global depth": r"y_d = \frac{1}{n} \sum_i \max_{c \in G_d} x_{c,i}",
    "local depth": r"y_d = \max_{c \in G_d} \max_i x_{c,i}",
    "s2d": r"y_{c k^2 + i k + j} = x_c[i, j]",
    "subsample": r"y_{uv} = x_{u s + o,\, v s + o}, \quad o = \left\lfloor \frac{k - 1}{2} \right\rfloor - p",
    "conv": r"y_d = b_d + \sum_c \sum_i w_{d,c,i}\, x_{c,i}",
}

"""Coefficients of the polynomials in cpp/kernels/math.inc.hpp and trig.inc.hpp.

Each polynomial is a Chebyshev interpolant (within a small factor of the minimax one) computed by
mpmath with 60 digits, its coefficients rounded to the element type. The error printed is that of the
rounded polynomial evaluated without further rounding, relative to the function that it serves.

    python bench/fit_polynomials.py           # print the C++ lines
    python bench/fit_polynomials.py --check   # compare them with the headers
"""

import argparse
import pathlib
import struct
import sys

from mpmath import cos, erfc, exp, floor, log, log1p, matrix, mp, mpf, pi, polyval, sin, sqrt

mp.dps = 60
KERNELS = pathlib.Path(__file__).resolve().parents[1] / "cpp" / "kernels"
HEADERS = (KERNELS / "math.inc.hpp", KERNELS / "trig.inc.hpp")
TYPES = ("float", "double")


def round_to(ctype, value):
    """Nearest number of the C++ type, as a Python float."""
    return float(value) if ctype == "double" else _nearest_float(value)


def _nearest_float(value):
    guess = struct.unpack("<f", struct.pack("<f", float(value)))[0]
    ulp = mpf(2) ** (mp.frexp(mpf(guess))[1] - 24)
    return float(min((guess - ulp, guess, guess + ulp), key=lambda g: abs(mpf(g) - value)))


def literal(ctype, value):
    """The value as a hexadecimal literal without trailing zeros."""
    mantissa, exponent = float(value).hex().split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}" + ("f" if ctype == "float" else "")


def chebyshev_nodes(low, high, count):
    low, high = mpf(low), mpf(high)
    nodes = [cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    return [(low + high) / 2 + (high - low) / 2 * node for node in nodes]


def interpolate(function, low, high, degree):
    """Monomial coefficients, lowest first, of the interpolant at the Chebyshev nodes."""
    count = degree + 1
    points = chebyshev_nodes(low, high, count)
    system = matrix(count, count)
    right = matrix(count, 1)
    for i, point in enumerate(points):
        right[i] = function(point)
        for j in range(count):
            system[i, j] = point**j
    return list(mp.lu_solve(system, right))


def worst(error, low, high, samples=2001):
    low, high = mpf(low), mpf(high)
    step = (high - low) / (samples - 1)
    return max(abs(error(low + step * i)) for i in range(samples))


def horner(coefficients, x):
    return polyval([mpf(c) for c in reversed(coefficients)], x)


def exponential(ctype, degree):
    """q with e^r = 1 + r + r^2 q(r), q(0) = 1/2, |r| <= ln(2)/2 and a little more."""
    edge = log(2) / 2 * (1 + mpf(2) ** -10)

    def target(r):
        if abs(r) < mpf(10) ** -12:
            return mpf(1) / 6 + r / 24
        return (exp(r) - 1 - r - r * r / 2) / r**3

    exact = [mpf("0.5"), *interpolate(target, -edge, edge, degree - 1)]
    coefficients = [round_to(ctype, c) for c in exact]

    def error(r):
        return (1 + r + r * r * horner(coefficients, r)) / exp(r) - 1

    return coefficients, worst(error, -edge, edge), f"[-{mp.nstr(edge, 5)}, {mp.nstr(edge, 5)}]"


def logarithm(ctype, degree):
    """p with log(1 + f) = 2 s + s^3 p(s^2), s = f / (2 + f), 0 <= s^2 <= 1/9."""
    edge = mpf(1) / 9

    def target(z):
        if z < mpf(10) ** -15:
            return mpf(2) / 3 + z * 2 / 5
        s = sqrt(z)
        return (log((1 + s) / (1 - s)) - 2 * s) / (s * z)

    coefficients = [round_to(ctype, c) for c in interpolate(target, 0, edge, degree)]

    def error(f):
        if f == 0:
            return mpf(0)
        s = f / (2 + f)
        return (2 * s + s**3 * horner(coefficients, s * s)) / log1p(f) - 1

    return coefficients, worst(error, 0, 1), "[0, 1/9]"


def far_tail(ctype, degree, smallest, largest):
    """F with Phi(-a) = exp(-a^2/2) w F(s), w = 1 / a, s = w - 1/8, for smallest <= a <= largest."""

    def target(s):
        a = 1 / (s + mpf("0.125"))
        return a * exp(a * a / 2) * erfc(a / sqrt(mpf(2))) / 2

    low, high = 1 / mpf(largest) - mpf("0.125"), 1 / mpf(smallest) - mpf("0.125")
    coefficients = [round_to(ctype, value) for value in interpolate(target, low, high, degree)]

    def error(s):
        return horner(coefficients, s) / target(s) - 1

    interval = f"[{mp.nstr(low, 5)}, {mp.nstr(high, 5)}]"
    return [
        describe(degree, interval, worst(error, low, high, 501)),
        f"static constexpr {ctype} kFarTail0 = {literal(ctype, coefficients[0])};",
        array_line(ctype, "kFarTail", coefficients[1:]),
    ]


def near_tail(ctype, degree, largest, centre):
    """Q with Phi(-a) = exp(-a^2/2 + a Q(s)) / 2, s = a - centre, for 0 <= a <= largest.

    The centre is a short number near the middle where rounding the first coefficient loses nothing
    that counts, found by trying multiples of 2^-12. The error is that of Phi.
    """

    def target(s):
        a = s + centre
        return log(exp(a * a / 2) * erfc(a / sqrt(mpf(2)))) / a

    first = round_to(ctype, target(mpf(0)))
    low, high = -centre, largest - centre
    points = chebyshev_nodes(low, high, 3 * degree)
    system = matrix(len(points), degree)
    right = matrix(len(points), 1)
    for i, s in enumerate(points):
        right[i] = (target(s) - first) * (s + centre)
        for j in range(degree):
            system[i, j] = s ** (j + 1) * (s + centre)
    coefficients = [round_to(ctype, value) for value in mp.lu_solve(system, right)]

    def error(s):
        return (first + s * horner(coefficients, s) - target(s)) * (s + centre)

    interval = f"[{mp.nstr(low, 5)}, {mp.nstr(high, 5)}]"
    return [
        f"static constexpr {ctype} kNearCentre = {literal(ctype, centre)};",
        describe(degree, interval, worst(error, low * 0.999, high, 501)),
        f"static constexpr {ctype} kNearTail0 = {literal(ctype, first)};",
        array_line(ctype, "kNearTail", coefficients),
    ]


SINE_EDGE = pi / 2 * (1 + mpf(2) ** -12)


def sine_error(ratio):
    """The worst relative error of r ratio(r^2) as sin(r)."""

    def error(r):
        return r * ratio(r * r) / sin(r) - 1 if r else mpf(0)

    return worst(error, 0, SINE_EDGE)


def short_sine(degree):
    """p with sin(r) = r p(r^2), to be rounded to float."""

    def target(z):
        return sin(sqrt(z)) / sqrt(z)

    exact = interpolate(target, 0, SINE_EDGE**2, degree)
    coefficients = [round_to("double", c) for c in exact]
    error = sine_error(lambda z: horner(coefficients, z))
    interval = f"[0, {mp.nstr(SINE_EDGE**2, 5)}]"
    return [
        describe(degree, interval, error),
        array_line("double", "kShortSine", coefficients),
    ]


def sine(degree):
    """p with sin(r) = r + r^3 p(r^2). The later coefficients make up for rounding the first two."""
    coefficients = []
    for _ in range(3):
        known, count = len(coefficients), degree + 1 - len(coefficients)
        points = chebyshev_nodes(0, SINE_EDGE**2, 3 * degree)
        system, right = matrix(len(points), count), matrix(len(points), 1)
        for i, z in enumerate(points):
            ratio = sin(sqrt(z)) / sqrt(z)
            right[i] = 1 - (1 + z * horner([*coefficients, 0], z)) / ratio
            for j in range(count):
                system[i, j] = z ** (known + j + 1) / ratio
        found = [round_to("double", c) for c in mp.lu_solve(system, right)]
        coefficients += found[:1] if known < 2 else found
    error = sine_error(lambda z: 1 + z * horner(coefficients, z))
    interval = f"[0, {mp.nstr(SINE_EDGE**2, 5)}]"
    return [
        f"static constexpr double kSine0 = {literal('double', coefficients[0])};",
        describe(degree, interval, error),
        array_line("double", "kSine", coefficients[1:]),
    ]


def turn_lines():
    """1 / pi and pi in parts: two of full length, and one of 25 bits with the rest after it."""
    high = float(pi)
    low = pi - high
    scale = mpf(2) ** (25 - mp.frexp(low)[1])
    mid = float(mp.nint(low * scale) / scale)
    names = {
        "kInversePi": 1 / pi,
        "kPiHi": high,
        "kPiLo": low,
        "kPiMid": mid,
        "kPiEnd": low - mid,
        "kCosineSlope": 4 / pi**2,
    }
    lines = [f"{name} = {literal('double', float(value))}" for name, value in names.items()]
    with mp.workprec(1400):
        bits = int(floor(mpf(2) ** 1184 / pi))
    words = [bits >> shift & 0xFFFFFFFF for shift in range(1184, -1, -32)]
    text = ", ".join(f"0x{word:08x}" for word in words)
    return [*lines, f"static constexpr uint32_t kInversePiBits[] = {{{text}}};"]


PLANS = {
    "float": {
        "exp": 5,
        "log": 4,
        "far": (6, 5, mpf("14.5")),
        "near": (11, 5, mpf("2.5") - mpf(87) / 4096),
    },
    "double": {
        "exp": 10,
        "log": 10,
        "far": (15, 5, 39),
        "near": (24, 5, mpf("2.5") + mpf(4) / 4096),
    },
}


def array_line(ctype, name, coefficients):
    body = ", ".join(literal(ctype, c) for c in coefficients)
    return f"static constexpr {ctype} {name}[] = {{{body}}};"


def pair_line(ctype, name, high, low):
    return (
        f"static constexpr {ctype} {name}Hi = {literal(ctype, high)}, "
        f"{name}Lo = {literal(ctype, low)};"
    )


def describe(degree, interval, error):
    return f"// {interval}, degree {degree}, error 2^{mp.nstr(log(error, 2), 4)}"


def coefficient_lines(ctype):
    plan = PLANS[ctype]
    lines = []
    coefficients, error, interval = exponential(ctype, plan["exp"])
    lines.append(describe(plan["exp"], interval, error))
    lines.append(array_line(ctype, "kExp", coefficients))
    coefficients, error, interval = logarithm(ctype, plan["log"])
    lines.append(describe(plan["log"], interval, error))
    lines.append(array_line(ctype, "kLog", coefficients))
    return lines + far_tail(ctype, *plan["far"]) + near_tail(ctype, *plan["near"])


def constant_lines(ctype):
    """Irrational constants, as value and remainder where the code needs both."""
    beta = 2 * sqrt(2 / pi)
    alpha = mpf("1.6732632423543772848170429916717")
    scale = mpf("1.0507009873554804934193349852946")
    pairs = {
        "kLn2": log(2),
        "kGeluA": beta,
        "kGeluB": beta * mpf("0.044715"),
        "kSeluScale": scale,
        "kSeluScaleAlpha": scale * alpha,
    }
    lines = [f"static constexpr {ctype} kLog2e = {literal(ctype, round_to(ctype, 1 / log(2)))};"]
    for name, value in pairs.items():
        high = round_to(ctype, value)
        if name == "kSeluScale" and mpf(high) > value:
            # Rounded down, so that both parts have one sign and infinity stays infinity.
            high -= 2.0 ** -(23 if ctype == "float" else 52)
        low = round_to(ctype, value - mpf(high))
        lines.append(pair_line(ctype, name, high, low))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the header")
    check = parser.parse_args().check
    header = "".join("".join(file.read_text() for file in HEADERS).split()) if check else ""
    missing = 0
    lines = [line for ctype in TYPES for line in constant_lines(ctype) + coefficient_lines(ctype)]
    for line in [*lines, *turn_lines(), *short_sine(5), *sine(7)]:
        if not check:
            print(line)
        elif not line.startswith("//") and "".join(line.split()) not in header:
            print("differs from the headers:", line)
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())

// Axes: round numbers between two ends, and where a value lies between them.
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const x of high / low > 1e3 ? [1] : [1, 2, 5]) ticks.push(Number((x * 10 ** power).toPrecision(12)));
  }
  return ticks.filter((x) => x >= low * 0.999 && x <= high * 1.001);
}

function axis(low, high, { log = false, count = 5, begin = 0, end = 1, base = 10 } = {}) {
  if (log) {
    const [a, b] = [Math.log(low), Math.log(low === high ? low * 10 : high)];
    const ticks = base === 2 ? powersOfTwo(low, high) : logTicks(low, low === high ? low * 10 : high);
    return { ticks, at: (x) => begin + ((Math.log(x) - a) / (b - a)) * (end - begin) };
  }
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    [low, high] = [low - room, high + room];
  }
  return { ticks: linearTicks(low, high, count), at: (x) => begin + ((x - low) / (high - low)) * (end - begin) };
}

function powersOfTwo(low, high) {
  const ticks = [];
  for (let x = 1; x <= high; x *= 2) if (x >= low) ticks.push(x);
  return ticks;
}

// A centred moving average; `share` of the points are in its window, which is cut off at both ends.
function smoothed(points, share) {
  const half = Math.round((share * points.length) / 2);
  if (half < 1) return points;
  const sums = [0];
  for (const [, y] of points) sums.push(sums[sums.length - 1] + y);
  return points.map(([x], i) => {
    const [from, to] = [Math.max(0, i - half), Math.min(points.length, i + half + 1)];
    return [x, (sums[to] - sums[from]) / (to - from)];
  });
}

/* What the page carries as JSON, and what its scripts make of it. Not part of the page: `tsc` reads
   it to check the scripts. Strings of bytes are base64. */

/** Deltas as LEB128, the first from 0. */
type Varint = string;
/** Little-endian f32. */
type F32 = string;
/** u16 on a log scale between exp(lo) and exp(hi): 0 is zero, 65535 not finite. */
type LogScale = { lo: number; hi: number; q: string };

interface Report {
  schema: 'tensorkeep.report.v2';
  kind: 'run';
  /** Unix seconds at which the page was made. */
  generated: number;
  version: string;
  /** Where a served page asks whether there is news. */
  live?: string;
  run: RunFacts;
  attempts: Attempt[];
  /** Steps and milliseconds since the first start, a list of knots per attempt. */
  clock: { t0: number; s: Varint[]; t: Varint[]; back: boolean };
  metrics: MetricData[];
  saves: { steps: Varint; stall: F32 };
  checkpoints: CheckpointColumns;
  tensors: TensorColumns;
  heat: Heat | null;
  ridge: Ridge | null;
  pairs: Pairs | null;
  damage: Damage[];
  cost: CostFacts;
}

interface RunFacts {
  name: string;
  path: string;
  state: string;
  step: number;
  total: number | null;
  per_epoch: number | null;
  has_history: boolean;
}

interface Attempt {
  n: number;
  host: string;
  first: number;
  last: number;
  /** Whether anything tells its steps; if not, first and last are where the one before ended. */
  placed: boolean;
  /** Unix seconds; null where nothing tells. */
  start: number | null;
  stop: number | null;
  end: 'killed' | 'stopped' | 'closed' | 'running' | 'unknown';
  resumed_from: number | null;
  /** Steps trained and lost; null where nothing tells. */
  lost: number | null;
  saves: number | null;
}

interface MetricData {
  name: string;
  dir: 'max' | 'min' | null;
  why: string;
  logged: number;
  steps: Varint;
  v: F32;
  /** From, to (steps), values, and whether the newest is among them. */
  nonfinite: [number, number, number][];
}

interface CheckpointColumns {
  step: number[];
  attempt: number[];
  /** Unix seconds; 0 where unknown. */
  t: number[];
  size: number[];
  /** Bits: 1 verified, 2 damaged, 4 has NaN, 8 looked at for NaN, 16 pinned, 32 cannot be read. */
  flags: number[];
  /** Indices into `reasons`. */
  why: number[];
  reasons: string[];
  /** Values per metric; "NaN" where not finite, null where it has none. */
  m: { [metric: string]: (number | string | null)[] };
}

interface TensorColumns {
  of: string;
  count: number;
  /** Front-coded: bytes shared with the name before, and the rest. */
  keep: number[];
  rest: string[];
  dtypes: string[];
  dtype: number[];
  shapes: string[];
  shape: number[];
  values: number[];
  bytes: number[];
  mean: F32;
  std: F32;
  norm: F32;
  zeros: F32;
  min: F32;
  max: F32;
  /** [tensor, values that are not finite]. */
  nan: [number, number][];
  /** [tensor, the one whose bytes it shares]. */
  ties: [number, string][];
  bars: number;
  /** Histograms of the first so many tensors, a byte a bar; "" without. */
  spark: string;
}

interface Heat {
  /** Columns, as indices of checkpoints. */
  cols: number[];
  labels: string[];
  /** Values in each row, to weigh it by. */
  count: number[];
  /** The tensor of each row, -1 where a row is a module. */
  tensor: number[];
  norm: LogScale;
  std: LogScale;
  update: LogScale;
  zeros: LogScale;
  /** [row, column] of the first that is not finite, oldest first. */
  first_nan: [number, number] | null;
  of: number;
}

interface Ridge {
  /** Rows of the heat map. */
  rows: number[];
  /** Columns of the heat map. */
  cols: number[];
  bins: number;
  range: [number, number][];
  /** Square roots of shares, a byte a bin. */
  h: string;
}

interface Pairs {
  pick: number[];
  labels: string[];
  /** Indices of tensors. */
  tensors: number[];
  rel: LogScale;
  angle: LogScale;
  /** [pair, row, words] for what no number says. */
  odd: [number, number, string][];
  records: RecordChanges[];
}

interface RecordChanges {
  config: [string, string | null, string | null][];
  changed: [string, string | null, string | null][];
  every: number;
}

interface Damage {
  ckpt: number;
  size: number;
  parts: [string, number, number][];
  at: number[];
}

interface CostFacts {
  facts: [string, string, string][];
}

/** A folder of runs. */
interface RunsPage {
  kind: 'runs';
  generated: number;
  live?: string;
  runs: RunRow[];
  metrics: string[];
}

interface RunRow {
  name: string;
  href: string | null;
  state: string;
  verdict: string;
  word: string;
  step: number;
  total: number | null;
  start: number | null;
  seen: number;
  attempts: number;
  killed: number;
  kept: number;
  bytes: number;
  best: [string, number, number] | null;
  settings: { [key: string]: string };
  series: { [metric: string]: { dir: 'max' | 'min' | null; steps: Varint; v: F32; t: Varint } };
}

/** One file. */
interface FilePage {
  kind: 'file';
  generated: number;
  name: string;
  tensors: TensorColumns;
  /** Where each tensor's bytes begin, where that is known. */
  at: (number | null)[];
}

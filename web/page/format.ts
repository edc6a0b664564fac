/** Numbers and devices in a few words. */
import type { DeviceInfo } from "../src/index.js";

/** Decimal megabytes or gigabytes, as download managers show them. */
export function size(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}

/** A number with so many digits, or a dash where there is none. */
export function fixed(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits);
}

/** The device in a few words. */
export function deviceText(device: DeviceInfo): string {
  const kind = device.kind === "gpu" ? (device.software ? "GPU in software" : "GPU") : "CPU";
  if (device.name.toUpperCase().startsWith(device.kind.toUpperCase())) return device.name;
  return device.name === "" ? kind : `${kind}, ${device.name}`;
}

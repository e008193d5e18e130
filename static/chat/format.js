import { strings } from "./strings.js";

const UNITS = ["B", "kB", "MB", "GB"];

/**
 * @param {number} value
 * @param {number} digits  after the point
 * @returns {string} as the page's language writes it
 */
export function formatNumber(value, digits) {
  return new Intl.NumberFormat(strings.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/**
 * Decimal units, as download sizes are usually given.
 *
 * @param {number} bytes
 * @returns {string} such as "21.4 MB"
 */
export function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${formatNumber(value, unit === 0 || value >= 100 ? 0 : unit === 3 ? 2 : 1)} ${UNITS[unit]}`;
}

/**
 * @param {number} seconds
 * @returns {string} such as "about 2 minutes left"; coarse on purpose, so that it does not flicker
 */
export function formatTimeLeft(seconds) {
  const { fewSeconds, seconds: some, minutes, hours } = strings.loading;
  if (seconds < 5) return fewSeconds;
  if (seconds < 55) return some(Math.ceil(seconds / 5) * 5);
  const count = Math.max(1, Math.round(seconds / 60));
  return count < 90 ? minutes(count) : hours(Math.round(count / 60));
}

/**
 * @param {number} rate
 * @returns {string} such as "0.42" or "143"
 */
export function formatRate(rate) {
  return formatNumber(rate, rate >= 100 ? 0 : rate >= 1 ? 1 : 2);
}

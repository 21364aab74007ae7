/** A small row of bars without axes. */
export function Spark({ values, label, tone }: { values: number[]; label: string; tone: string }) {
  const top = Math.max(1, ...values);
  return (
    <svg
      className="spark"
      data-tone={tone}
      viewBox={`0 0 ${values.length * 5} 24`}
      role="img"
      aria-label={label}
    >
      {values.map((value, n) => {
        const height = value === 0 ? 1 : Math.max(3, (value / top) * 24);
        return (
          <rect
            key={n}
            x={n * 5}
            y={24 - height}
            width="3.5"
            height={height}
            rx="0.8"
            opacity={value ? 1 : 0.35}
          />
        );
      })}
    </svg>
  );
}

SELECT auction, bidder, price, channel, url, date_time, extra, rn
FROM (
  SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn
  FROM bid
) x
WHERE rn <= 10

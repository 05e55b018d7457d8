SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT max(price) AS maxprice, time_bucket(INTERVAL 10 SECOND, date_time) + INTERVAL 10 SECOND AS dt FROM bid GROUP BY dt
) m
ON b.price = m.maxprice
WHERE b.date_time BETWEEN m.dt - INTERVAL 10 SECOND AND m.dt
